"""Plans: from resources to manifests, pure."""
