"""One volume: read and write NIfTI, NRRD and MHA with its geometry."""
