"""`python -m slam_app`."""

from slam_app.cli import main

if __name__ == "__main__":
    main()
