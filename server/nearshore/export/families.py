"""The architectures that can be exported, one description each.

Every one of them is BERT (Devlin et al., 2019) with switches, so all but BERT say only how they differ from another.
Names and defaults are those of the `transformers` library; NomicBERT's configuration has those of Nomic's own code as
well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nearshore.export.family import Classifier, Family, LanguageHead

_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "vocabulary_size": "vocab_size",
    "positions": "max_position_embeddings",
    "activation": "hidden_act",
    "layer_norm_epsilon": "layer_norm_eps",
}
_TYPES = {"token_types": "type_vocab_size"}
_EPSILON: Mapping[str, object] = {"layer_norm_epsilon": 1e-12}
_ABSOLUTE: Mapping[str, tuple[object, ...]] = {"position_embedding_type": ("absolute",)}

BERT = Family(
    architecture="bert",
    model_types=("bert",),
    prefix="bert.",
    keys=_KEYS | _TYPES,
    defaults={**_EPSILON, "token_types": 2},
    requires=_ABSOLUTE,
    words="embeddings.word_embeddings",
    types="embeddings.token_type_embeddings",
    positions="embeddings.position_embeddings",
    embeddings_norm="embeddings.LayerNorm",
    qkv=tuple(f"encoder.layer.{{}}.attention.self.{part}" for part in ("query", "key", "value")),
    context="encoder.layer.{}.attention.output.dense",
    attention_norm="encoder.layer.{}.attention.output.LayerNorm",
    wide=("encoder.layer.{}.intermediate.dense",),
    narrow="encoder.layer.{}.output.dense",
    output_norm="encoder.layer.{}.output.LayerNorm",
    pooler="pooler.dense",
    language_head=LanguageHead(
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        bias="cls.predictions.bias",
    ),
    classifier=Classifier(source="pooled", output="classifier"),
    heads=("cls.", "classifier.", "qa_outputs."),
)

ROBERTA = replace(
    BERT,
    architecture="roberta",
    model_types=("roberta", "xlm-roberta", "camembert"),
    prefix="roberta.",
    keys=_KEYS | _TYPES | {"padding_id": "pad_token_id"},
    defaults={**_EPSILON, "token_types": 2, "padding_id": 1},
    word_pieces=False,
    language_head=LanguageHead(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        bias="lm_head.bias",
        activation="gelu",
    ),
    classifier=Classifier(source="first", dense="classifier.dense", output="classifier.out_proj"),
    heads=("lm_head.", "classifier.", "qa_outputs."),
)

DISTILBERT = replace(
    BERT,
    architecture="distilbert",
    model_types=("distilbert",),
    prefix="distilbert.",
    keys={
        "layers": "n_layers",
        "heads": "n_heads",
        "hidden_size": "dim",
        "intermediate_size": "hidden_dim",
        "vocabulary_size": "vocab_size",
        "positions": "max_position_embeddings",
        "activation": "activation",
    },
    defaults={**_EPSILON, "token_types": 0},
    requires={},
    types=None,
    qkv=tuple(f"transformer.layer.{{}}.attention.{part}_lin" for part in "qkv"),
    context="transformer.layer.{}.attention.out_lin",
    attention_norm="transformer.layer.{}.sa_layer_norm",
    wide=("transformer.layer.{}.ffn.lin1",),
    narrow="transformer.layer.{}.ffn.lin2",
    output_norm="transformer.layer.{}.output_layer_norm",
    pooler=None,
    language_head=LanguageHead(
        dense="vocab_transform",
        norm="vocab_layer_norm",
        decoder="vocab_projector",
        bias="vocab_projector.bias",
    ),
    classifier=Classifier(source="first", dense="pre_classifier", activation="relu", output="classifier"),
    heads=("vocab_", "pre_classifier.", "classifier.", "qa_outputs."),
)

ELECTRA = replace(
    BERT,
    architecture="electra",
    model_types=("electra",),
    prefix="electra.",
    keys=_KEYS | _TYPES | {"embedding_size": "embedding_size"},
    defaults={**_EPSILON, "token_types": 2, "embedding_size": 128},
    projection="embeddings_project",
    pooler=None,
    language_head=LanguageHead(
        dense="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        decoder="generator_lm_head",
        bias="generator_lm_head.bias",
        activation="gelu",
    ),
    classifier=Classifier(source="first", dense="classifier.dense", activation="gelu", output="classifier.out_proj"),
    heads=("generator_", "discriminator_predictions.", "classifier.", "qa_outputs."),
)

_ALBERT_LAYER = "encoder.albert_layer_groups.{}.albert_layers.0"
ALBERT = replace(
    BERT,
    architecture="albert",
    model_types=("albert",),
    prefix="albert.",
    keys=_KEYS | _TYPES | {"embedding_size": "embedding_size", "groups": "num_hidden_groups"},
    defaults={**_EPSILON, "token_types": 2, "embedding_size": 128, "groups": 1},
    requires={**_ABSOLUTE, "inner_group_num": (1,)},
    word_pieces=False,
    projection="encoder.embedding_hidden_mapping_in",
    always_projected=True,
    qkv=tuple(f"{_ALBERT_LAYER}.attention.{part}" for part in ("query", "key", "value")),
    context=f"{_ALBERT_LAYER}.attention.dense",
    attention_norm=f"{_ALBERT_LAYER}.attention.LayerNorm",
    wide=(f"{_ALBERT_LAYER}.ffn",),
    narrow=f"{_ALBERT_LAYER}.ffn_output",
    output_norm=f"{_ALBERT_LAYER}.full_layer_layer_norm",
    pooler="pooler",
    language_head=LanguageHead(
        dense="predictions.dense",
        norm="predictions.LayerNorm",
        decoder="predictions.decoder",
        bias="predictions.bias",
    ),
    heads=("predictions.", "sop_classifier.", "classifier.", "qa_outputs."),
)

MPNET = replace(
    ROBERTA,
    architecture="mpnet",
    model_types=("mpnet",),
    prefix="mpnet.",
    keys=_KEYS,
    defaults={**_EPSILON, "token_types": 0, "padding_id": 1},  # 1 whatever pad_token_id says
    requires={"relative_attention_num_buckets": (32,)},
    types=None,
    relative_positions="encoder.relative_attention_bias",
    qkv=tuple(f"encoder.layer.{{}}.attention.attn.{part}" for part in "qkv"),
    context="encoder.layer.{}.attention.attn.o",
    attention_norm="encoder.layer.{}.attention.LayerNorm",
)

MODERNBERT = Family(
    architecture="modernbert",
    model_types=("modernbert",),
    prefix="model.",
    word_pieces=False,
    keys={**_KEYS, "activation": "hidden_activation", "layer_norm_epsilon": "norm_eps"},
    defaults={"layer_norm_epsilon": 1e-5, "activation": "gelu", "token_types": 0},
    requires={
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "norm_bias": (False,),
        "classifier_bias": (False,),
        "decoder_bias": (True,),
        "classifier_activation": ("gelu",),
        "classifier_pooling": ("cls", "mean"),
    },
    words="embeddings.tok_embeddings",
    embeddings_norm="embeddings.norm",
    qkv=("layers.{}.attn.Wqkv",),
    context="layers.{}.attn.Wo",
    attention_norm="layers.{}.attn_norm",
    wide=("layers.{}.mlp.Wi",),
    narrow="layers.{}.mlp.Wo",
    output_norm="layers.{}.mlp_norm",
    final_norm="final_norm",
    gated=True,
    pre_norm=True,
    biased=False,
    biased_norms=False,
    language_head=LanguageHead(
        dense="head.dense",
        norm="head.norm",
        decoder="decoder",
        bias="decoder.bias",
        activation="gelu",
    ),
    classifier=Classifier(source="first", dense="head.dense", activation="gelu", norm="head.norm", output="classifier"),
    heads=("head.", "decoder.", "classifier."),
)

NOMIC_CODE = replace(
    BERT,
    architecture="nomic_bert",
    model_types=("nomic_bert",),
    keys={
        "layers": "n_layer",
        "heads": "n_head",
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "vocabulary_size": "vocab_size",
        "positions": "n_positions",
        "activation": "activation_function",
        "layer_norm_epsilon": "layer_norm_epsilon",
        "token_types": "type_vocab_size",
        "rotary_base": "rotary_emb_base",
    },
    defaults={},
    requires={
        "causal": (False,),
        "prenorm": (False,),
        "parallel_block": (False,),
        "use_rms_norm": (False, None),
        "qkv_proj_bias": (False,),
        "mlp_fc1_bias": (False,),
        "mlp_fc2_bias": (False,),
        "rotary_emb_fraction": (1.0,),
        "rotary_emb_interleaved": (False,),
        "rotary_emb_scale_base": (None,),
        "rotary_head_dim": (False, None),
        "num_heads_kv": (None,),
        "moe_every_n_layers": (0, None),
    },
    positions=None,
    embeddings_norm="emb_ln",
    qkv=("encoder.layers.{}.attn.Wqkv",),
    context="encoder.layers.{}.attn.out_proj",
    attention_norm="encoder.layers.{}.norm1",
    wide=("encoder.layers.{}.mlp.fc12", "encoder.layers.{}.mlp.fc11"),
    narrow="encoder.layers.{}.mlp.fc2",
    output_norm="encoder.layers.{}.norm2",
    gated=True,
    biased=False,
    language_head=LanguageHead(
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.layer_norm",
        decoder="cls.predictions.decoder",
    ),
)

_NOMIC_BERT = replace(
    NOMIC_CODE,
    prefix="nomic_bert.",
    keys=_KEYS | _TYPES,
    defaults={**_EPSILON, "token_types": 2, "activation": "silu"},
    requires={**NOMIC_CODE.requires, "rope_scaling": (None,), "partial_rotary_factor": (1.0, None)},
    language_head=LanguageHead(
        dense="cls.predictions.transform.dense",
        biased=True,
        norm="cls.predictions.transform.layer_norm",
        decoder="cls.predictions.decoder",
        bias="cls.predictions.bias",
    ),
)
NOMIC_BERT = replace(
    _NOMIC_BERT,
    renamed=replace(  # as it is saved with save_original_format=False
        _NOMIC_BERT,
        embeddings_norm="embeddings.LayerNorm",
        qkv=tuple(f"layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
        context="layers.{}.self_attn.o_proj",
        attention_norm="layers.{}.post_attention_layernorm",
        wide=("layers.{}.mlp.gate_proj", "layers.{}.mlp.up_proj"),
        narrow="layers.{}.mlp.down_proj",
        output_norm="layers.{}.post_mlp_layernorm",
    ),
)

FAMILIES = (BERT, ROBERTA, DISTILBERT, ELECTRA, ALBERT, MPNET, MODERNBERT, NOMIC_BERT)
