"""The operator: four resources in, Kubernetes objects out."""
