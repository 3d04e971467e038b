"""What a training needs and costs on TPUs that you do not have."""
