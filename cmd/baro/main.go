// Command baro is the AT Protocol on the command line: a whole local network with `baro up`, each of its servers alone, and
// the tools to read, check and write repositories. `baro help` lists them.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
