// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
)

// parseLevel reads Envoy's names of log levels.
func parseLevel(name string) (slog.Level, error) {
	switch name {
	case "trace":
		return slog.LevelDebug - 4, nil
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warning", "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "critical":
		return slog.LevelError + 4, nil
	case "off":
		return slog.Level(math.MaxInt32), nil
	default:
		return 0, fmt.Errorf("%q: want trace, debug, info, warning, error, critical or off", name)
	}
}

// newLogger makes the process's logger and the level that the admin port changes.
func newLogger(w io.Writer, name string) (*slog.Logger, *slog.LevelVar, error) {
	level, err := parseLevel(name)
	if err != nil {
		return nil, nil, err
	}
	v := new(slog.LevelVar)
	v.Set(level)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: v})), v, nil
}
