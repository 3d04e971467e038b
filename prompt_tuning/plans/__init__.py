"""What training needs and costs on TPUs that are not here."""
