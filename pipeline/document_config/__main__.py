from pipeline.document_config.cli import main

if __name__ == "__main__":
    main()
