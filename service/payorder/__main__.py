"""`python -m payorder` is the `payorder` command."""

from payorder.cli.main import main

if __name__ == "__main__":
    main()
