"""How does a training scale? What is asked → a plan of cases → measured, stored, continued."""
