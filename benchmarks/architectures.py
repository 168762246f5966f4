"""Small random models of the architectures that transformers builds from configs and that Dynamo captures whole
(`torch.compile(model, backend="eager", fullgraph=True)`); `architectures_table.py` and the tests draw from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """`config` and `model` are class names in transformers; `inputs` names a function below."""

    name: str
    kind: str
    config: str
    model: str
    inputs: str
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 0) -> tuple[Any, dict[str, Any]]:
        """(the module in eval mode with random weights, its example inputs by argument name)"""
        import torch
        import transformers

        torch.manual_seed(seed)
        config = getattr(transformers, self.config)(**self.options)
        module, inputs = getattr(transformers, self.model)(config), INPUTS[self.inputs]()
        return calibrated(module, inputs).eval(), inputs


def calibrated(module: Any, inputs: dict[str, Any]) -> Any:
    """Batch norms take the statistics of a forward pass: with those of an untrained model, values fade or blow up."""
    import torch

    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            module.train()(**inputs)
    return module


# -- example inputs --------------------------------------------------------------------------------
def tokens(batch: int = 2, length: int = 16) -> Any:
    import torch

    return torch.randint(3, 99, (batch, length))


def pixels(size: int) -> Any:
    import torch

    return torch.randn(2, 3, size, size)


def noise(*shape: int) -> Any:
    import torch

    return torch.randn(*shape)


def padded_mask() -> Any:
    import torch

    return torch.cat([torch.ones(2, 12, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)], 1)


def trajectory() -> dict[str, Any]:
    import torch

    return {
        "states": noise(2, 5, 7),
        "actions": noise(2, 5, 3),
        "rewards": noise(2, 5, 1),
        "returns_to_go": noise(2, 5, 1),
        "timesteps": torch.arange(5)[None].repeat(2, 1),
        "attention_mask": torch.ones(2, 5),
    }


INPUTS = {
    "text": lambda: {"input_ids": tokens()},
    "padded text": lambda: {"input_ids": tokens(), "attention_mask": padded_mask()},
    "long text": lambda: {"input_ids": tokens(length=32)},
    "two texts": lambda: {"input_ids": tokens(), "decoder_input_ids": tokens(length=8)},
    "image 32": lambda: {"pixel_values": pixels(32)},
    "image 64": lambda: {"pixel_values": pixels(64)},
    "image and noise": lambda: {"pixel_values": pixels(32), "noise": noise(2, 16)},
    "text and image": lambda: {"input_ids": tokens(), "pixel_values": pixels(32)},
    "sound": lambda: {"input_values": noise(2, 800)},
    "spectrogram": lambda: {"input_values": noise(2, 32, 16)},
    "mel and text": lambda: {"input_features": noise(2, 16, 40), "decoder_input_ids": tokens(length=8)},
    "frames and text": lambda: {"input_features": noise(2, 40, 16), "decoder_input_ids": tokens(length=8)},
    "series": lambda: {"past_values": noise(2, 32, 3)},
    "trajectory": trajectory,
}

# -- sizes that many configs share -----------------------------------------------------------------
STAGES = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
TEXT = {
    "vocab_size": 99,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
IMAGE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}
DECODER = {**TEXT, "num_key_value_heads": 2, "pad_token_id": 0}
GPT = {"vocab_size": 99, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
T5 = {"vocab_size": 99, "d_model": 64, "num_layers": 2, "num_heads": 4, "d_ff": 128, "d_kv": 16}
PAIR = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
}
TRANSLATOR = {**PAIR, "vocab_size": 99, "max_position_embeddings": 64}
STATE_SPACE = {"vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}
EXPERTS = {**DECODER, "num_experts": 4, "num_experts_per_tok": 2}
SOUND = {
    "vocab_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": (32, 32, 32),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 3),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WINDOWS = {"image_size": 64, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}


def convolutional() -> list[Architecture]:
    def cnn(name: str, stem: str, **options: Any) -> Architecture:
        return Architecture(name, "CNN", f"{stem}Config", f"{stem}ForImageClassification", "image 64", options)

    return [
        cnn("resnet", "ResNet", embedding_size=16, layer_type="bottleneck", **STAGES),
        cnn("mobilenet_v1", "MobileNetV1", depth_multiplier=0.25),
        cnn("mobilenet_v2", "MobileNetV2", depth_multiplier=0.35),
        cnn("convnext", "ConvNext", **STAGES),
        cnn("convnext_v2", "ConvNextV2", **STAGES),
        cnn("regnet", "RegNet", embedding_size=16, groups_width=8, **STAGES),
        cnn("poolformer", "PoolFormer", **STAGES),
        cnn("efficientnet", "EfficientNet", width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320),
        cnn("bit", "Bit", embedding_size=16, num_groups=4, **STAGES),
    ]


def vision() -> list[Architecture]:
    def vit(name: str, stem: str, inputs: str = "image 32", suffix: str = "ForImageClassification", **options: Any):
        return Architecture(name, "vision transformer", f"{stem}Config", f"{stem}{suffix}", inputs, options)

    heads = {"num_attention_heads": [1, 2, 2, 4]}
    backbone = {"model_type": "resnet", "embedding_size": 16, **STAGES, "out_features": ["stage4"]}
    small_pair = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return [
        vit("vit", "ViT", **IMAGE),
        vit("deit", "DeiT", suffix="ForImageClassificationWithTeacher", **IMAGE),
        vit("beit", "Beit", use_relative_position_bias=True, **IMAGE),
        vit("dinov2", "Dinov2", **IMAGE),
        vit("dinov2_registers", "Dinov2WithRegisters", **IMAGE),
        vit("dinov3", "DINOv3ViT", suffix="Model", **IMAGE),
        vit("vit_mae", "ViTMAE", "image and noise", "Model", **IMAGE),
        vit("swin", "Swin", "image 64", **WINDOWS),
        vit("swin_v2", "Swinv2", "image 64", **WINDOWS),
        vit("hiera", "Hiera", "image 64", image_size=[64, 64], embed_dim=16, depths=[1] * 4, num_heads=[1, 2, 4, 8]),
        vit(
            "levit",
            "Levit",
            "image 64",
            image_size=64,
            hidden_sizes=[16, 32, 48],
            depths=[1] * 3,
            num_attention_heads=[2] * 3,
            key_dim=[8] * 3,
        ),
        vit(
            "mobilevit",
            "MobileViT",
            "image 64",
            image_size=64,
            hidden_sizes=[32, 48, 64],
            neck_hidden_sizes=[16, 16, 24, 32, 48, 64, 96],
        ),
        vit("swiftformer", "SwiftFormer", "image 64", image_size=64, depths=[1] * 4, embed_dims=[16, 32, 48, 64]),
        vit("pvt", "Pvt", "image 64", image_size=64, **STAGES, **heads),
        vit("segformer", "Segformer", "image 64", "ForSemanticSegmentation", decoder_hidden_size=32, **STAGES, **heads),
        vit(
            "dpt",
            "DPT",
            "image 64",
            "ForDepthEstimation",
            **{**IMAGE, "num_hidden_layers": 4, "image_size": 64, "patch_size": 16},
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 32, 48, 64],
            fusion_hidden_size=32,
        ),
        vit(
            "yolos",
            "Yolos",
            suffix="ForObjectDetection",
            **{**IMAGE, "image_size": [32, 32]},
            num_detection_tokens=10,
        ),
        vit(
            "detr",
            "Detr",
            "image 64",
            "ForObjectDetection",
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=backbone,
            d_model=32,
            num_queries=5,
            **small_pair,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
        ),
        vit(
            "ast",
            "AST",
            "spectrogram",
            "ForAudioClassification",
            **{k: v for k, v in IMAGE.items() if k != "image_size"},
            frequency_stride=4,
            time_stride=4,
            max_length=32,
            num_mel_bins=16,
        ),
    ]


def text_and_image() -> list[Architecture]:
    def pair(name: str, stem: str, suffix: str = "Model", text: Any = None, **options: Any) -> Architecture:
        options = {"text_config": {**TEXT, **(text or {})}, "vision_config": IMAGE, **options}
        return Architecture(name, "text and image", f"{stem}Config", f"{stem}{suffix}", "text and image", options)

    return [
        pair("clip", "CLIP", text={"eos_token_id": 2}, projection_dim=32),
        pair(
            "clipseg",
            "CLIPSeg",
            "ForImageSegmentation",
            {"eos_token_id": 2},
            projection_dim=32,
            extract_layers=[0, 1],
            reduce_dim=16,
        ),
        pair("siglip", "Siglip"),
        pair("blip", "Blip", projection_dim=32),
    ]


def encoders() -> list[Architecture]:
    def encoder(name: str, stem: str, suffix: str = "Model", inputs: str = "text", **options: Any) -> Architecture:
        return Architecture(name, "encoder", f"{stem}Config", f"{stem}{suffix}", inputs, {**TEXT, **options})

    bare = [
        Architecture(
            "distilbert",
            "encoder",
            "DistilBertConfig",
            "DistilBertForSequenceClassification",
            "text",
            {
                "vocab_size": 99,
                "dim": 64,
                "n_layers": 2,
                "n_heads": 4,
                "hidden_dim": 128,
                "max_position_embeddings": 64,
            },
        ),
        Architecture(
            "funnel",
            "encoder",
            "FunnelConfig",
            "FunnelModel",
            "text",
            {"vocab_size": 99, "d_model": 64, "block_sizes": [1, 1], "n_head": 4, "d_head": 16, "d_inner": 128},
        ),
        Architecture(
            "xlnet",
            "encoder",
            "XLNetConfig",
            "XLNetModel",
            "text",
            {"vocab_size": 99, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128},
        ),
        Architecture(
            "perceiver",
            "encoder",
            "PerceiverConfig",
            "PerceiverForMaskedLM",
            "long text",
            {
                "vocab_size": 99,
                "max_position_embeddings": 32,
                "d_model": 32,
                "d_latents": 32,
                "num_latents": 8,
                "num_self_attends_per_block": 2,
                "num_self_attention_heads": 2,
                "num_cross_attention_heads": 2,
                "qk_channels": 32,
                "v_channels": 32,
            },
        ),
    ]
    return [
        encoder("bert", "Bert", "ForMaskedLM"),
        encoder("bert_padded", "Bert", inputs="padded text"),
        encoder("roberta", "Roberta", "ForSequenceClassification"),
        encoder("xlm_roberta", "XLMRoberta"),
        encoder("camembert", "Camembert"),
        encoder("albert", "Albert", "ForMaskedLM", embedding_size=32),
        encoder("electra", "Electra", "ForPreTraining", embedding_size=64),
        encoder("deberta", "Deberta", "ForMaskedLM"),
        encoder("deberta_v2", "DebertaV2", "ForMaskedLM"),
        encoder("mpnet", "MPNet"),
        encoder("layoutlm", "LayoutLM"),
        encoder("ernie", "Ernie"),
        encoder("convbert", "ConvBert", embedding_size=64),
        encoder("roformer", "RoFormer", embedding_size=64),
        encoder("squeezebert", "SqueezeBert", embedding_size=64),
        encoder("mobilebert", "MobileBert", embedding_size=32, intra_bottleneck_size=32),
        encoder("megatron_bert", "MegatronBert"),
        encoder("modernbert", "ModernBert", pad_token_id=0),
        encoder("splinter", "Splinter"),
        encoder("ibert", "IBert"),
        encoder("data2vec_text", "Data2VecText"),
        encoder("bigbird", "BigBird", attention_type="original_full"),
        *bare,
    ]


def decoders() -> list[Architecture]:
    def decoder(name: str, stem: str, suffix: str = "ForCausalLM", base: Any = None, **options: Any) -> Architecture:
        options = {**(DECODER if base is None else base), **options}
        return Architecture(name, "decoder", f"{stem}Config", f"{stem}{suffix}", "text", options)

    small = {"vocab_size": 99, "hidden_size": 64}
    return [
        decoder("gpt2", "GPT2", "LMHeadModel", GPT),
        decoder("gptj", "GPTJ", base=GPT, rotary_dim=8),
        decoder("codegen", "CodeGen", base=GPT, rotary_dim=8),
        decoder(
            "gpt_neo",
            "GPTNeo",
            base=small,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            max_position_embeddings=64,
            intermediate_size=128,
        ),
        decoder("gpt_neox", "GPTNeoX", base=TEXT),
        decoder(
            "opt",
            "OPT",
            base=small,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=128,
            max_position_embeddings=64,
            word_embed_proj_dim=64,
        ),
        decoder("bloom", "Bloom", base=small, n_layer=2, n_head=4),
        decoder("falcon", "Falcon", base=small, num_hidden_layers=2, num_attention_heads=4),
        decoder("mpt", "Mpt", base={"vocab_size": 99, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
        decoder("biogpt", "BioGpt", base=TEXT),
        decoder("llama", "Llama"),
        decoder("mistral", "Mistral", sliding_window=8),
        decoder("qwen2", "Qwen2"),
        decoder("qwen3", "Qwen3", head_dim=16),
        decoder("gemma", "Gemma", head_dim=16),
        decoder("gemma2", "Gemma2", head_dim=16),
        Architecture("gemma3", "decoder", "Gemma3TextConfig", "Gemma3ForCausalLM", "text", {**DECODER, "head_dim": 16}),
        decoder("phi", "Phi"),
        decoder("phi3", "Phi3"),
        decoder("stablelm", "StableLm"),
        decoder("olmo", "Olmo"),
        decoder("olmo2", "Olmo2"),
        decoder("cohere", "Cohere"),
        decoder("starcoder2", "Starcoder2"),
        decoder("persimmon", "Persimmon"),
        decoder("granite", "Granite"),
        decoder("glm", "Glm", head_dim=16),
        decoder("nemotron", "Nemotron"),
        decoder("smollm3", "SmolLM3"),
        decoder("helium", "Helium", head_dim=16),
    ]


def mixtures() -> list[Architecture]:
    def mixture(name: str, stem: str, base: Any = None, **options: Any) -> Architecture:
        options = {**(DECODER if base is None else base), **options}
        return Architecture(name, "mixture of experts", f"{stem}Config", f"{stem}ForCausalLM", "text", options)

    return [
        mixture("mixtral", "Mixtral", num_local_experts=4, num_experts_per_tok=2),
        mixture("qwen2_moe", "Qwen2Moe", EXPERTS, moe_intermediate_size=32, shared_expert_intermediate_size=64),
        mixture("qwen3_moe", "Qwen3Moe", EXPERTS, moe_intermediate_size=32, head_dim=16),
        mixture("olmoe", "Olmoe", EXPERTS),
        mixture("granite_moe", "GraniteMoe", num_local_experts=4, num_experts_per_tok=2),
        mixture("phimoe", "Phimoe", num_local_experts=4),
        mixture("gpt_oss", "GptOss", head_dim=16, num_local_experts=4, num_experts_per_tok=2),
        mixture(
            "deepseek_v3",
            "DeepseekV3",
            num_key_value_heads=4,
            moe_intermediate_size=32,
            n_routed_experts=8,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=8,
            v_head_dim=16,
            qk_nope_head_dim=16,
            first_k_dense_replace=1,
        ),
    ]


def pairs() -> list[Architecture]:
    def pair(name: str, stem: str, suffix: str = "ForConditionalGeneration", inputs: str = "two texts", **options: Any):
        return Architecture(name, "encoder-decoder", f"{stem}Config", f"{stem}{suffix}", inputs, options)

    return [
        pair("t5", "T5", **T5),
        pair("mt5", "MT5", **T5),
        pair("bart", "Bart", **TRANSLATOR),
        pair("mbart", "MBart", **TRANSLATOR),
        pair("marian", "Marian", "MTModel", pad_token_id=0, decoder_start_token_id=0, **TRANSLATOR),
        pair("pegasus", "Pegasus", **TRANSLATOR),
        pair("m2m_100", "M2M100", **TRANSLATOR),
        pair("blenderbot", "Blenderbot", **TRANSLATOR),
        pair(
            "whisper",
            "Whisper",
            inputs="mel and text",
            **PAIR,
            vocab_size=99,
            num_mel_bins=16,
            max_source_positions=20,
            max_target_positions=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
        pair(
            "speech_to_text",
            "Speech2Text",
            inputs="frames and text",
            **PAIR,
            vocab_size=99,
            input_feat_per_channel=16,
            conv_channels=32,
        ),
    ]


def recurrent() -> list[Architecture]:
    def ssm(name: str, stem: str, **options: Any) -> Architecture:
        return Architecture(name, "state space", f"{stem}Config", f"{stem}ForCausalLM", "text", options)

    return [
        ssm("mamba", "Mamba", **STATE_SPACE),
        ssm("mamba2", "Mamba2", **STATE_SPACE, num_heads=8, head_dim=16, n_groups=2, chunk_size=8),
        ssm("falcon_mamba", "FalconMamba", **STATE_SPACE),
        ssm(
            "rwkv",
            "Rwkv",
            vocab_size=99,
            hidden_size=64,
            num_hidden_layers=2,
            attention_hidden_size=64,
            intermediate_size=128,
        ),
        ssm(
            "recurrent_gemma",
            "RecurrentGemma",
            **{**DECODER, "num_key_value_heads": 1, "num_hidden_layers": 3},
            lru_width=64,
            attention_window_size=8,
        ),
    ]


def sounds_and_series() -> list[Architecture]:
    series = {
        "num_input_channels": 3,
        "context_length": 32,
        "patch_length": 4,
        "patch_stride": 4,
        "prediction_length": 8,
    }
    return [
        Architecture("wav2vec2", "sound", "Wav2Vec2Config", "Wav2Vec2ForCTC", "sound", SOUND),
        Architecture("hubert", "sound", "HubertConfig", "HubertForCTC", "sound", SOUND),
        Architecture("wavlm", "sound", "WavLMConfig", "WavLMForCTC", "sound", SOUND),
        Architecture("data2vec_audio", "sound", "Data2VecAudioConfig", "Data2VecAudioForCTC", "sound", SOUND),
        Architecture(
            "patchtst",
            "time series",
            "PatchTSTConfig",
            "PatchTSTForPrediction",
            "series",
            {**series, "d_model": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64},
        ),
        Architecture(
            "patchtsmixer",
            "time series",
            "PatchTSMixerConfig",
            "PatchTSMixerForPrediction",
            "series",
            {**series, "d_model": 16, "num_layers": 2},
        ),
        Architecture(
            "decision_transformer",
            "control",
            "DecisionTransformerConfig",
            "DecisionTransformerModel",
            "trajectory",
            {"state_dim": 7, "act_dim": 3, "hidden_size": 32, "n_layer": 2, "n_head": 2},
        ),
    ]


ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for group in (
        convolutional,
        vision,
        text_and_image,
        encoders,
        decoders,
        mixtures,
        pairs,
        recurrent,
        sounds_and_series,
    )
    for a in group()
}
