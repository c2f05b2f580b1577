"""Models with the configurations of the Pythia suite and random weights, for speed measurements."""

from pathlib import Path

# hidden size, layers, heads of EleutherAI's suite (Biderman et al. 2023, arXiv:2304.01373)
PYTHIA = {"pythia-70m": (512, 6, 8), "pythia-410m": (1024, 24, 16), "pythia-1.4b": (2048, 24, 16)}
VOCABULARY = 50_304


def write_pythia(name: str, tokenizer: Path, folder: Path) -> Path:
    """Write a model of that configuration with weights of seed 0 to `folder`; return `folder`.

    tokenizer: a folder with the tokenizer.json of GPT-NeoX, which is written along.
    """
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    hidden_size, layers, heads = PYTHIA[name]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    special_tokens = {"eos_token": "<|endoftext|>", "pad_token": "<|padding|>"}
    fast = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"), **special_tokens)
    fast.save_pretrained(folder)
    return folder
