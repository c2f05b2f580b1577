from pipeline.prove.cli import main

if __name__ == "__main__":
    main()
