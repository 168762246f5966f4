"""python -m effcc: the command, where its script is not on the path."""

from effcc.cli import main

if __name__ == "__main__":
    main()
