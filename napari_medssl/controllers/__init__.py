"""What happens after a click: plain Python, one controller per panel."""
