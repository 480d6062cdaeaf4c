"""``tidewarden run ROLE``: one pod's process."""
