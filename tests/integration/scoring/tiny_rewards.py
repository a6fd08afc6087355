"""A random sequence classifier, small enough to make and load in a second: the shape of a reward model."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] + ' <end>' }}{% endfor %}"
)
END = "<end>"


def write_reward_model(folder: Path, *, outputs: int = 1, chat: bool = True) -> Path:
    """Save model and tokenizer. As with many real ones, padding is the token that ends every message."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    words = ["[UNK]", END, *"<>?.:", "user", "assistant", "answer", "good", "bad", *map(str, range(20))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token=END, pad_token=END)
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,  # heads of 64: vLLM on a processor takes no smaller ones than 32
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        num_labels=outputs,
        pad_token_id=fast.pad_token_id,
    )
    model = LlamaForSequenceClassification(config)
    model.score.weight.data.mul_(20.0)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def reference_scores(folder: Path, conversations: list[list[dict[str, str]]]) -> list[float]:
    """One at a time, without padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for messages in conversations:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        model.config.pad_token_id = None
        with torch.inference_mode():
            found.append(float(model(input_ids=ids).logits[0, 0]))
    return found
