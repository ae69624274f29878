"""The jobs that a job asks for at its end: ``triggers.json``, from its bytes to checked values. Knows no server and no sandbox."""
