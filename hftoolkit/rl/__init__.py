"""Learning from preferences: reward models, and PPO against them."""
