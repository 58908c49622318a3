# No provider: everything here is computed, so it is planned and tested without a cloud.
terraform {
  required_version = ">= 1.9" # validations that look at other variables
}
