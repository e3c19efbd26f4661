"""GroupCDL of github.com/nikopj/GroupCDL-TIP, with its Julia checkpoints; see docs/groupcdl.md."""
