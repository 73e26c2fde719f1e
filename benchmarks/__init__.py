"""How good and how fast the numbers are; nothing here is shipped or asserted by the tests."""
