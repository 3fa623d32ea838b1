// Package crashpoint names the places where a durable step can be cut in two, so that a test can kill the process exactly there.
//
// Every step that turns memory into durable state (submitting a batch, renaming a file, acknowledging a request) calls [Hit] with a name
// before and after. In an ordinary build Hit is an empty function that the compiler removes. Built with the tag faulttest, the
// environment variable BARO_CRASHPOINT="name:n" makes the process send itself SIGKILL at the n-th hit of that name, which is how the
// crash tests check that nothing acknowledged is lost and nothing is half there.
//
// The package does not simulate power loss: that is what the crashable in-memory file system of the tests is for.
//
//	crashpoint.Hit("pds/blob/renamed")
package crashpoint
