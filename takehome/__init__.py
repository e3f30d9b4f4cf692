"""What is on screen as files: pictures, tables, a page that stays clickable, graphs, citations."""
