/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_DOC_H
#define IB_CTL_DOC_H

/* What is written of iommubrokerctl, from its tables. */

#include <stdio.h>

/* iommubrokerctl(1), in mdoc. */
void doc_print_manual(FILE *to);
/* Completion for bash. */
void doc_print_bash(FILE *to);

#endif
