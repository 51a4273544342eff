"""Built-in defenses. Import them as ``freqrobust.defenses``; they are found by entry point like any other plugin."""

if __name__ == "defenses":
    raise ImportError("this folder is installed as freqrobust.defenses; import freqrobust.defenses instead")
