from pipeline.nano.build import main

if __name__ == "__main__":
    main()
