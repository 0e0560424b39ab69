"""The proofhold command."""
