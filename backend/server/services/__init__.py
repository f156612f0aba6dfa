"""Services the routes and the lifespan use."""
