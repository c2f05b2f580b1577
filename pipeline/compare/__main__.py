from pipeline.compare.stage import main

if __name__ == "__main__":
    main()
