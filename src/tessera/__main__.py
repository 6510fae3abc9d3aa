"""python -m tessera."""

from tessera.machine.launch import die_with_the_launcher

if __name__ == "__main__":
    die_with_the_launcher()  # before anything slow is imported: a launcher that dies meanwhile must not be missed
    from tessera.cli import main

    main()
