// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// The values of -o beside the table that is written without it.
var (
	outputJSON    = []string{"json"}
	outputObjects = []string{"yaml", "json", "wide"}
	outputRows    = []string{"json", "text"}
)

// bindOutput adds -o with the completion of its values.
func bindOutput(cmd *cobra.Command, output *string, byDefault, usage string, values ...string) {
	cmd.Flags().StringVarP(output, "output", "o", byDefault, usage)
	completeFlag(cmd, "output", values...)
}

// checkOutput refuses what -o does not know; empty is the default.
func checkOutput(output string, values ...string) error {
	if output == "" || slices.Contains(values, output) {
		return nil
	}
	return exitWith(exitUsage, "-o: want %s, got %q", oneOf(values), output)
}

// oneOf is a list as people write it: a, b or c.
func oneOf(values []string) string {
	last := len(values) - 1
	if last == 0 {
		return values[0]
	}
	return strings.Join(values[:last], ", ") + " or " + values[last]
}

// bindFiles adds -f with the completion of file names.
func bindFiles(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "`file`, folder, or - for standard input; may be repeated")
	// It fails only where there is no such flag.
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

// noArguments refuses every argument.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return unknownCommand(cmd, args[0])
	}
	return exitWith(exitUsage, "%s takes no arguments, got %q", cmd.CommandPath(), args[0])
}

// onlyFiles refuses arguments of a command that reads files: who leaves -f out
// means a file.
func onlyFiles(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return exitWith(exitUsage, "files are named with -f: %s -f %s", cmd.CommandPath(), strings.Join(args, " -f "))
}

// refuseUnknownShells makes a misspelt shell an error: cobra shows its help for it,
// with success.
func refuseUnknownShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.SuggestionsMinimumDistance = 2
			c.Args, c.RunE = noArguments, func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
}

// unknownCommand names what was meant where that can be guessed.
func unknownCommand(cmd *cobra.Command, name string) error {
	hint := ""
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %q?", near[0])
	}
	return exitWith(exitUsage, "%s has no command %q%s", cmd.CommandPath(), name, hint)
}

// explainURL refuses what the API would.
func explainURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != mesh.ProtocolTCP && u.Scheme != mesh.ProtocolTLS {
		return exitWith(exitUsage, "url: want an http:// URL such as http://payments/v1/x, or tcp://db:5432, got %.200q", text)
	}
	return nil
}

// explainArguments wants a method and a URL.
func explainArguments(cmd *cobra.Command, args []string) error {
	const example = "controlplane explain GET http://payments/v1/x"
	switch {
	case len(args) == 2 && strings.Contains(args[0], "://"):
		return exitWith(exitUsage, "the method comes first: %s %s %s", cmd.CommandPath(), strings.ToUpper(args[1]), args[0])
	case len(args) == 2:
		return explainURL(args[1])
	case len(args) == 1 && strings.Contains(args[0], "://"):
		return exitWith(exitUsage, "the method is missing: %s GET %s", cmd.CommandPath(), args[0])
	case len(args) == 1:
		return exitWith(exitUsage, "the URL is missing: want METHOD URL, such as %s", example)
	case len(args) == 0:
		return exitWith(exitUsage, "want METHOD URL, such as %s", example)
	}
	return exitWith(exitUsage, "want METHOD URL, such as %s, got %d arguments; headers are given with -H 'name: value'", example, len(args))
}
