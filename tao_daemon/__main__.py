"""`python -m tao_daemon` is `tao-daemon`."""

from tao_daemon.cli.main import main

if __name__ == "__main__":
    main()
