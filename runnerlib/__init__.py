"""What a job can ask of the runner from inside its sandbox. Standard library only, Python 3.8 or newer."""
