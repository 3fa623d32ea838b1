// Package interop holds what is tested against software that nobody here wrote, and what is measured beside it. It is a
// module of its own, so that the things it needs never become dependencies of Barograph.
//
//	cd interop && go test ./...
//	cd interop && go run ./bench
//	cd interop && go run -tags libsecp256k1 ./bench
//
// The real clients need Node 22 or newer and Python 3.10 or newer with the packages of clients/package.json and
// clients/requirements.txt; the reference PDS, what refpds/install installs. $INTEROP_NODE and $INTEROP_PYTHON name other
// programs than node and python3. What is missing makes a test skip with a line that says so; with CI=true it fails instead.
//
// The results of bench, a speed table, are in results/.
package interop
