"""Tables about keys: ranges of the stock ones, names that are gone, names that mean something else here, free changes.

Names and meanings are those of transformers 5.23 (training_args.py) and trl 1.16.
"""

# Ranges that the stock classes do not state. A default outside its range (max_steps -1: unset) stays allowed.
POSITIVE_COUNT = {"min": 1}
SHARE = {"min": 0, "below": 1}
STOCK_LIMITS = {
    "learning_rate": {"above": 0},
    "max_steps": POSITIVE_COUNT,
    "num_train_epochs": {"above": 0},
    "per_device_train_batch_size": POSITIVE_COUNT,
    "per_device_eval_batch_size": POSITIVE_COUNT,
    "gradient_accumulation_steps": POSITIVE_COUNT,
    "warmup_steps": {"min": 0, "steps_or_share": True},
    "logging_steps": {"above": 0, "steps_or_share": True},
    "eval_steps": {"above": 0, "steps_or_share": True},
    "save_steps": {"above": 0, "steps_or_share": True},
    "eval_delay": {"min": 0},
    "eval_accumulation_steps": POSITIVE_COUNT,
    "save_total_limit": POSITIVE_COUNT,
    "weight_decay": {"min": 0},
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "adam_epsilon": {"above": 0},
    "max_grad_norm": {"min": 0},
    "label_smoothing_factor": SHARE,
    "neftune_noise_alpha": {"min": 0},
    "seed": {"min": 0, "max": 2**32 - 1},  # what numpy takes
    "data_seed": {"min": 0, "max": 2**32 - 1},
    "dataloader_num_workers": {"min": 0},
    "dataloader_prefetch_factor": POSITIVE_COUNT,
    "torch_empty_cache_steps": POSITIVE_COUNT,
    "ddp_timeout": POSITIVE_COUNT,
    "ddp_bucket_cap_mb": POSITIVE_COUNT,
    "generation_max_length": POSITIVE_COUNT,
    "generation_num_beams": POSITIVE_COUNT,
    "max_length": {"min": 2},
    "dataset_num_proc": POSITIVE_COUNT,
}
# Texts that the stock classes accept but whose annotation says only `str`.
LOG_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")
REPORTERS = (
    *("none", "all", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow"),
    *("mlflow", "neptune", "swanlab", "tensorboard", "trackio", "wandb"),
)
STOCK_CHOICES = {
    "log_level": LOG_LEVELS,
    "log_level_replica": LOG_LEVELS,
    "report_to": REPORTERS,
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),
}
STOCK_FOLDER = "trainer_output"  # where TrainingArguments writes when output_dir is not given
# What the text of a stock key stands for, see fields.Field.
STOCK_RULES = {
    "output_dir": {"folder": True},
    "run_name": {"name": True},
    "hub_model_id": {"name": True},
    "hub_revision": {"name": True},
    **dict.fromkeys(
        ("resume_from_checkpoint", "deepspeed", "fsdp_config", "accelerator_config"), {"must_exist": True}
    ),
    "trust_remote_code": {"flag_only": True},
}
# Packages that `report_to` needs; each comes with the extra `track` except wandb.
REPORTER_PACKAGES = {
    "tensorboard": ("tensorboard", "pip install 'hftoolkit[track]'"),
    "trackio": ("trackio", "pip install 'hftoolkit[track]'"),
    "wandb": ("wandb", "pip install wandb"),
}

# Fields of a config class, by their stock names; the class itself checks what depends on the architecture.
CONFIG_LIMITS = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"), POSITIVE_COUNT),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "num_labels"), POSITIVE_COUNT),
    **dict.fromkeys(("embedding_size", "projection_size", "num_filters"), POSITIVE_COUNT),
    **dict.fromkeys(("embedding_dropout_prob", "hidden_dropout_prob", "attention_probs_dropout_prob"), SHARE),
    **dict.fromkeys(("classifier_dropout_prob", "dropout", "word_dropout", "label_smoothing"), SHARE),
    "weight_dropout_prob": SHARE,
    **dict.fromkeys(("layer_norm_eps", "initializer_range"), {"above": 0}),
    "z_loss": {"min": 0},
}
# What transformers.PretrainedConfig itself takes, for a config class that passes **kwargs on.
CONFIG_KEYS = {
    "problem_type": "Literal['regression', 'single_label_classification', 'multi_label_classification'] | None",
    "num_labels": "int",
    "id2label": "dict",
    "label2id": "dict",
    "tie_word_embeddings": "bool",
    "bos_token_id": "int | None",
    "eos_token_id": "int | list[int] | None",
    "pad_token_id": "int | None",
}

# Names of earlier versions and of other programs. What is a key now never reaches this table.
NEVER_OVERWRITTEN = "a run folder is never overwritten: give another output_dir"
GONE = {
    "warmup_ratio": "it is now warmup_steps: below 1 it is a share of all steps, 'warmup_steps: 0.1'",
    "evaluation_strategy": "it is now 'eval_strategy'",
    "overwrite_output_dir": NEVER_OVERWRITTEN,
    "overwrite": NEVER_OVERWRITTEN,
    "group_by_length": "it is now 'train_sampling_strategy: group_by_length'",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "no_cuda": "it is now 'use_cpu: true'",
    "use_mps_device": "an Apple GPU is used by itself",
    "per_gpu_train_batch_size": "it is now 'per_device_train_batch_size'",
    "per_gpu_eval_batch_size": "it is now 'per_device_eval_batch_size'",
    "save_safetensors": "models are always saved as safetensors",
    "adafactor": "it is now 'optim: adafactor'",
    "torchdynamo": "it is now 'torch_compile: true'",
    "include_inputs_for_metrics": "it is now 'include_for_metrics: [inputs]'",
    "dispatch_batches": "it is now in 'accelerator_config'",
    "split_batches": "it is now in 'accelerator_config'",
    "half_precision_backend": "there is only one backend left",
    "fp16_backend": "there is only one backend left",
    "fp16_opt_level": "apex is no longer supported; use 'bf16: true'",
    "push_to_hub_model_id": "it is now 'hub_model_id'",
    "push_to_hub_organization": "write the organization in 'hub_model_id: organization/name'",
    "use_auth_token": "log in with `hf auth login` or set HF_TOKEN",
    "lr": "it is 'learning_rate'",
    "epochs": "it is 'num_train_epochs'",
    "num_epochs": "it is 'num_train_epochs'",
    "steps": "it is 'max_steps'",
    "batch_size": "it is 'per_device_train_batch_size'",
    "train_batch_size": "it is 'per_device_train_batch_size'",
    "eval_batch_size": "it is 'per_device_eval_batch_size'",
    "dataset_name": "it is 'dataset'",
    "train_file": "it is 'dataset', which takes a file, a folder or a Hub id",
    "data_files": "it is 'dataset', which takes a file, a folder or a Hub id",
    "block_size": "it is 'max_length'",
    "max_seq_length": "it is 'max_length'",
    "max_train_samples": "it is 'max_documents'",
    "validation_split_percentage": "it is 'validation_fraction', between 0 and 1",
    "tokenizer_name": "it is 'tokenizer'",
    "model_type": "it is 'architecture'",
    "config_overrides": "write the fields of the model's config under 'model_config'",
    "torch_dtype": "it is 'dtype'",
    "n_layer": "it is 'num_hidden_layers', under 'model_config'",
    "n_head": "it is 'num_attention_heads', under 'model_config'",
    "n_embd": "it is 'hidden_size', under 'model_config'",
    "n_inner": "it is 'intermediate_size', under 'model_config'",
    "n_positions": "it is 'max_position_embeddings', under 'model_config'",
    "n_ctx": "it is 'max_position_embeddings', under 'model_config'",
}

# Keys that may differ when a run is resumed, by the reason why the resulting weights stay the same.
INERT = {
    "only what is reported": (
        *("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node"),
        *("log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id"),
        *("trackio_bucket_id", "trackio_static_space_id", "include_num_input_tokens_seen", "skip_memory_metrics"),
    ),
    "only what is kept on disk": (
        *("save_strategy", "save_steps", "save_total_limit", "save_on_each_node", "save_only_model"),
        *("enable_jit_checkpoint", "resume_from_checkpoint", "output_dir"),
    ),
    "only what is published": (
        *("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
    ),
    "workers give the same order": (
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "preprocessing_num_workers"),
    ),
    "only speed and patience": ("ddp_timeout", "torch_empty_cache_steps"),
    "permission, not content": ("trust_remote_code",),
    # Unless a choice hangs on the evaluation, see checks.inert_keys.
    "evaluation changes no weight": (
        *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps"),
        *("eval_do_concat_batches", "eval_use_gather_object", "per_device_eval_batch_size", "prediction_loss_only"),
        *("include_for_metrics", "batch_eval_metrics"),
    ),
}

# The stock keys that --help explains; it only names the others.
EXPLAINED = {
    "how long": ("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    "optimizer": (
        *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "weight_decay"),
        *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    ),
    "precision and memory": ("bf16", "fp16", "tf32", "activation_checkpointing", "torch_compile", "use_cpu"),
    "evaluating": (
        *("eval_strategy", "eval_steps", "per_device_eval_batch_size", "load_best_model_at_end"),
        *("metric_for_best_model",),
    ),
    "saving and reporting": (
        *("output_dir", "save_strategy", "save_steps", "save_total_limit", "logging_steps", "report_to", "run_name"),
        *("push_to_hub", "hub_model_id", "hub_private_repo"),
    ),
    "randomness and workers": ("seed", "data_seed", "dataloader_num_workers"),
}

# Models and data sets that people know by the name they had on the Hub before owners were added.
OWNERS = {
    **dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "openai-gpt"), "openai-community"),
    **dict.fromkeys(("bert-base-uncased", "bert-base-cased", "bert-large-uncased"), "google-bert"),
    **dict.fromkeys(("t5-small", "t5-base", "t5-large"), "google-t5"),
    **dict.fromkeys(("distilbert-base-uncased", "distilgpt2"), "distilbert"),
    **dict.fromkeys(("roberta-base", "roberta-large"), "FacebookAI"),
    "glue": "nyu-mll",
    "squad": "rajpurkar",
    "imdb": "stanfordnlp",
    "wikitext": "Salesforce",
    "conll2003": "eriktks",
    "ag_news": "fancyzhx",
    "TinyStories": "roneneldan",
    "openwebtext": "Skylion007",
}
