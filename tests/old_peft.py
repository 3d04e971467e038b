"""What old versions of PEFT know of an adapter's configuration."""

# The settings that PEFT 0.6.2 knows. It, and those up to 0.10 at least, refuse
# an adapter with any other, whatever its value. All of these were loaded with
# 0.6.2 and 0.10.0 and computed what PEFT 0.21.2 does, to 1.7e-6.
COMMON = {
  *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type"),
  *("revision", "task_type"),
}
VIRTUAL = {
  *("num_attention_heads", "num_layers", "num_transformer_submodules"),
  *("num_virtual_tokens", "token_dim"),
}
KNOWN = {
  "PROMPT_TUNING": COMMON
  | VIRTUAL
  | {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"},
  "PREFIX_TUNING": COMMON
  | VIRTUAL
  | {"encoder_hidden_size", "prefix_projection"},
  "P_TUNING": COMMON
  | VIRTUAL
  | {"encoder_dropout", "encoder_hidden_size", "encoder_num_layers"}
  | {"encoder_reparameterization_type"},
  "LORA": COMMON
  | {"alpha_pattern", "bias", "fan_in_fan_out", "init_lora_weights", "r"}
  | {"layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout"}
  | {"modules_to_save", "rank_pattern", "target_modules"},
  "IA3": COMMON
  | {"fan_in_fan_out", "feedforward_modules", "init_ia3_weights"}
  | {"modules_to_save", "target_modules"},
}
