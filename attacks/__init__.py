"""Built-in attacks. Import them as ``freqrobust.attacks``; they are found by entry point like any other plugin."""

if __name__ == "attacks":
    raise ImportError("this folder is installed as freqrobust.attacks; import freqrobust.attacks instead")
