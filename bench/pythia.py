"""Models of the Pythia suite's configurations with random weights, for speed alone."""

from pathlib import Path

# hidden size, layers, heads: of EleutherAI's suite (Biderman et al. 2023, arXiv:2304.01373)
PYTHIA = {"pythia-70m": (512, 6, 8), "pythia-410m": (1024, 24, 16), "pythia-1.4b": (2048, 24, 16)}
VOCABULARY = 50_304


def write_pythia(name: str, tokenizer: Path, folder: Path) -> Path:
    """Write a model of that configuration, its weights by seed 0, and GPT-NeoX's tokenizer from a folder with tokenizer.json."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    hidden, layers, heads = PYTHIA[name]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    ends = {"eos_token": "<|endoftext|>", "pad_token": "<|padding|>"}
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"), **ends).save_pretrained(folder)
    return folder
