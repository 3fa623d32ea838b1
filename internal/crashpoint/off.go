//go:build !faulttest || !unix

package crashpoint

// Enabled says whether this build can kill itself.
const Enabled = false

// Hit does nothing in a build without the tag faulttest.
func Hit(string) {}
