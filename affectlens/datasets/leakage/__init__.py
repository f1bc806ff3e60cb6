"""What a classifier could tell emotions apart by without reading the emotion."""
