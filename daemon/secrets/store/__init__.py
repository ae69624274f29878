"""The encrypted store of secrets: one file that only its password opens.

``SecretStore`` is the door. Nothing here runs in the daemon or the job server: deriving a key loads cryptography.
"""
