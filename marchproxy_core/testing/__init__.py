"""What an author of a tier tests with: conformance kit, fake tier, fault rig, network-namespace laboratory."""
