// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/outrigger-mesh/outrigger/pkg/lake"
)

// tapped reads the lake's files and wants exchanges of payments in them, with the
// bodies that were asked for.
func (s *story) tapped(context.Context) (string, error) {
	dir := filepath.Join(s.mesh.dataDir(), "lake")
	files, err := lake.List(dir)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if f.Service != "payments" || f.Rows == 0 {
			continue
		}
		var text bytes.Buffer
		if err := lake.Cat(&text, filepath.Join(dir, f.Path), lake.FormatJSON); err != nil {
			return "", err
		}
		if err := wholeRow(text.Bytes()); err != nil {
			return "", fmt.Errorf("%s: %w", f.Path, err)
		}
		return fmt.Sprintf("%d exchanges in %s", f.Rows, f.Path), nil
	}
	return "", errors.New("no Parquet file with exchanges of payments")
}

// wholeRow wants a row with an answer of payments as its body.
func wholeRow(rows []byte) error {
	for line := range bytes.Lines(rows) {
		var row struct {
			Tap    string `json:"tap"`
			Status int    `json:"status"`
			Body   string `json:"response_body"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		var a answer
		if row.Status == 200 && json.Unmarshal([]byte(row.Body), &a) == nil && a.Service == "payments" {
			return nil
		}
	}
	return errors.New("no row has an answer of payments as its body")
}
