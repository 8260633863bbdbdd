"""`python -m wootz`."""

from wootz.cli.app import main

if __name__ == "__main__":
    main()
