//go:build race

package data_test

func init() { underRace = true }
