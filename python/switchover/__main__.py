"""``python -m switchover``: the command, where its script is not on the path."""

from switchover.cli import main

if __name__ == "__main__":
    main()
