from pipeline.tokenize.stage import main

if __name__ == "__main__":
    main()
