"""The filtering proxy of a sandbox that may reach some hosts: its rules, its listener inside, its process outside."""
