"""Where the hook is plugged into payment protocols of others. A missing extra is named by the error."""
