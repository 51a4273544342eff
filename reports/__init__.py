"""Built-in reports. Import them as ``freqrobust.reports``; they are found by entry point like any other plugin."""

if __name__ == "reports":
    raise ImportError("this folder is installed as freqrobust.reports; import freqrobust.reports instead")
