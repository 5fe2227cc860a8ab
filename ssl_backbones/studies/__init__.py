"""The detection protocols that pretrainings are judged by, and one checkpoint under several of them."""
